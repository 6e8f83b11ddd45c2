"""What takes more than one call, described without I/O.

A procedure is a generator that yields effects (a call, a pause, something to tell) and is sent
their results; a driver performs them, blocking or not. No rule about money, waiting or cancelling
stands anywhere else.
"""
