"""The records of a run that outlast it: evidence as a type, and certificates that an auditor can verify."""
