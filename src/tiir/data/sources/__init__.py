"""Sources of data sets: each module has one function `prepare(...) -> Dataset`."""
