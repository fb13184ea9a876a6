"""One rule for each thing that may be wrong: it looks at what an evaluation finds and gives verdicts."""
