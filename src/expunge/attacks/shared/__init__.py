"""Code that several attacks share: no plug-ins."""
