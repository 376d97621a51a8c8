"""The page of `edge-hal correct`: the segments that training found, corrected by a person."""
