"""The API's requests, one module for each resource; each function makes a `Call` or `Pages` and sends nothing. Pure."""
