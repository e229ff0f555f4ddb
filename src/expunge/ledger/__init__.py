"""What remains of runs: certificates that an auditor can verify."""
