"""What tasks do on a Kubernetes cluster besides running a step in their own pod."""
