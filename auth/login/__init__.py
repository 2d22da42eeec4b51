"""The bundled login service: accounts, pages, and the forms between them."""
