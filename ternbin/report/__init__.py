"""Renderers of result.json: HTML page, CSV tables, terminal text, Chrome/Perfetto trace."""
