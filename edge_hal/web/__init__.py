"""The pages that show streams in a browser, and the server that delivers them. Needs the extra `web`."""
