"""Networks under the names of their published weights, a file a family, and what fetches these."""
