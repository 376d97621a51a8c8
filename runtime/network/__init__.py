"""Addresses, keys and connections: where a run may be reached, and by whom. What is sent is in `runtime/delivery`.

`endpoint.py`, `bind_errors.py`: addresses. `curve_keys.py`: keys of both sides. `admission.py` looks them up, and
`handshakes.py` tells why one failed. `connections.py`: how many there may be. `descriptors.py`: how many descriptors
that leaves. `monitored_socket.py`: a socket that tells what becomes of its connections.
"""
