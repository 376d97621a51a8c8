"""Step graphs, their lint, the certificate, and all of it as a bundle."""
