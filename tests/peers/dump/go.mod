// Our reader of bbolt files, with no code of etcd. Built by ../build.
module etcdlift.test/peers/dump

go 1.26

require go.etcd.io/bbolt v1.5.0

require golang.org/x/sys v0.45.0 // indirect
