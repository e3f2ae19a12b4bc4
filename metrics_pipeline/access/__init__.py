"""How sources and stores reach the outside: secrets, state files, databases, HTTP.

Settings sections are made of these types. Nothing here knows what is read or stored.
"""
