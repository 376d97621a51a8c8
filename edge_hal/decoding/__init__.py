"""From posteriors to decisions. numpy only, since it runs on the device.

`decoder.py`: decisions, and the interface of a decoder. `decoder_config.py`: its thresholds. `decode.py`: opens a
decoder and runs it over posteriors. `belief_decoder.py` decides by the belief (`belief.py`, `forward_filter.py`);
`hysteresis.py` and `semi_markov.py` are the decoders of versions before 0.3. `procedure.py`: order and durations of the
steps. `conformance.py` follows it, with `cycle_rules.py` and `running_cycle.py`; `cycle_reports.py`: deviations and
cycles. `kept_belief.py`, `kept_cycle.py`: what is kept over a pause. `timeline.py`: decisions as labels and as
transition points.
"""
