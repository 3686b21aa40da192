"""Self-contained HTML pages: one look, charts as inline SVG, no reference to the outside."""
