"""The browser's face of segclip: a Streamlit page and, when asked for, an HTTP API beside it."""
