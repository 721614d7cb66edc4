"""Training of dual encoders and of LXMERT."""
