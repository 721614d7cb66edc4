"""Tables, exports and pictures of what a Run retrieved."""
