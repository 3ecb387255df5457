"""The HTTP API: schema, access control and request handling."""
