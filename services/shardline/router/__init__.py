"""A router: validates, admits, chooses a replica, sends rows, retries elsewhere, answers once. Stateless."""
