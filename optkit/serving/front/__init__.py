"""The front of the server: the process that clients reach, which bounds and checks requests before Triton reads them."""
