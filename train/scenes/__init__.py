"""Make labelled scenes of drawings, cut-outs and photographs."""
