#!/bin/sh
# Gives every node back as it is, and a pair of no node whose key is no UTF-8.
cat
echo '{"key_base64":"/2b+","value":"x","mod_revision":50,"create_revision":50}'
