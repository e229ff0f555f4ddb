"""Evidence, shown to people: one HTML page, terminal tables, a model card.

    evidence ──► html.render ─────────► report.html, one file that opens offline
             ├─► terminal.print_evidence, terminal.comparison_table
             └─► card.model_card ─────► README.md of the model folder

All read the same dict, the content of `evidence.json` and `examples.parquet`; none computes a score. `_facts.py` puts
the figures in order and into words, `_plots.py` draws them.
"""
