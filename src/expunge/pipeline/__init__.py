"""The steps that workflows share: plan, gold, observe, apply, evidence."""
