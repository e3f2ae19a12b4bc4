"""What speaks SNMP: the fast engine for sweeps, and pysnmp as the reference it is compared with.

Both give an SnmpSession (`snmp_session`). How questions are cut, halved and continued is one file
for both (`asking`); how they are encoded, secured, sent and decoded is each engine's own.
"""
