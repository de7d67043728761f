"""What runs inside the server: its Python backend."""
