"""Generate labelled scenes of drawings, cut-outs and photographs."""
