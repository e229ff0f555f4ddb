"""Statistics over many models, and tests of contamination: no plug-ins."""
