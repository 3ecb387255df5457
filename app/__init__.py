"""The web app of segclip: Streamlit pages and, optionally, an HTTP API."""
