"""The only place where parts are put together: settings in, a running server out."""
