"""The HTTP API: what goes over it, who may ask, how requests are answered."""
