#!/bin/sh
# Keeps what it is sent beside its own name, and answers nothing.
exec cat >"$0.sent"
