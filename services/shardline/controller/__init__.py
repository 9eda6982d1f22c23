"""Model objects of Kubernetes become Deployments and Services: the only package that knows Kubernetes.

`plan` decides and is pure; `worker` acts, one for each object; `api` is the door to the API server; `app` puts it together.
"""
