"""Will it work on this machine? One module for each kind of thing that a run needs; `examine` asks them all."""
