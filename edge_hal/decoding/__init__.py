"""From posteriors to decisions. numpy only, since it runs on the device.

`decoder.py`: configuration, decisions, the interface, and `open_decoder`. `hysteresis.py` and `semi_markov.py`: the two
decoders. `procedure.py`: order and durations of the steps, for the second. `timeline.py`: decisions as labels and as
transition points. To add a decoder, write a subclass of `Decoder` here and name it in `open_decoder`.
"""
