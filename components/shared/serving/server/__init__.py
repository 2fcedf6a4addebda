"""Server of a bundle: the Open Inference Protocol v2 over REST and gRPC, and POST /predict."""
