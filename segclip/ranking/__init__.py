"""From cosines to the rows that answer a text: templates, probabilities, positions, selection."""
