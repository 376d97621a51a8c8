"""The page of `edge-hal view`: what runs recognise."""
