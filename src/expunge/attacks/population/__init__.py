"""Statistics over many models, and of contamination: no plug-ins."""
