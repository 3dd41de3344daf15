"""What people need to run penstock in containers and on Kubernetes."""
