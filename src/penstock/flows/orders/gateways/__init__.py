"""The clients of the outside world: payments and carrier over HTTP, mail over SMTP.

Each module has ``gateway(settings)``, named in the catalog; what it returns is called from several
threads at once and answers with one of the four outcomes of ``penstock.ports``.
"""
