"""The stand-in for the exchange: streams, REST and faults on this machine, and a record of what it sent."""
