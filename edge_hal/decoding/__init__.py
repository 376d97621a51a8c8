"""From posteriors to decisions. numpy only, since it runs on the device.

`decoder.py`: decisions, and the interface of a decoder. `decoder_config.py`: its thresholds. `decode.py`: opens a
decoder and runs it over posteriors. `belief_decoder.py` decides by the belief (`belief.py`, `forward_filter.py`);
`hysteresis.py` and `semi_markov.py` are the decoders of versions before 0.3. `kept_belief.py`: what is kept of the
belief over a pause. `timeline.py`: decisions as labels and as transition points. `familiarity.py`: whether the input is
like that of training. `fusion.py` combines the posteriors of several views.
"""
