"""cvm-gateway: for mail servers that do not speak CVM.

It is unprivileged, opens none of qmail's files, and parses what strangers send.  Its listeners turn bytes into
questions with the codecs of `cvm_qmail.protocols`, and ask a CVM module through its socket.
"""
