"""The life of a request, as one pure decision. Read this first."""
