// Command dump prints what a bbolt file written for etcd v3 holds, as one
// JSON object a line, so that tests can compare it without trusting any
// code of etcdlift. It knows go.etcd.io/bbolt and the wire format of
// mvccpb.KeyValue, nothing else of etcd.
//
//	dump FILE
//
// FILE is a backend ("member/snap/db") or a snapshot file; the checksum that
// ends a snapshot file lies after the last page and is never read. The file
// is opened read-only. The first line names the buckets, then come all pairs
// in the order of the file: those of bucket "key" decoded, the others as
// base64.
package main

import (
	"bufio"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"time"

	bolt "go.etcd.io/bbolt"
)

type bucketsLine struct {
	Buckets []string `json:"buckets"`
}

type pairLine struct {
	Bucket string `json:"bucket"`
	K      []byte `json:"k"`
	V      []byte `json:"v"`
}

type keyLine struct {
	Bucket    string `json:"bucket"`
	Main      int64  `json:"main"`
	Sub       int64  `json:"sub"`
	Tombstone bool   `json:"tombstone"`
	keyValue
}

type keyValue struct {
	Key     []byte `json:"key"`
	Create  int64  `json:"create"`
	Mod     int64  `json:"mod"`
	Version int64  `json:"version"`
	Value   []byte `json:"value"`
	Lease   int64  `json:"lease"`
}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: dump FILE")
		os.Exit(2)
	}
	if err := dump(os.Args[1]); err != nil {
		fmt.Fprintf(os.Stderr, "dump: %s: %v\n", os.Args[1], err)
		os.Exit(1)
	}
}

func dump(path string) error {
	db, err := bolt.Open(path, 0o400, &bolt.Options{ReadOnly: true, Timeout: 5 * time.Second})
	if err != nil {
		return err
	}
	defer db.Close()
	out := bufio.NewWriterSize(os.Stdout, 1<<20)
	if err := db.View(func(tx *bolt.Tx) error { return dumpTx(tx, json.NewEncoder(out)) }); err != nil {
		return err
	}
	return out.Flush()
}

func dumpTx(tx *bolt.Tx, out *json.Encoder) error {
	names := []string{}
	err := tx.ForEach(func(name []byte, _ *bolt.Bucket) error {
		names = append(names, string(name))
		return nil
	})
	if err != nil {
		return err
	}
	if err := out.Encode(bucketsLine{names}); err != nil {
		return err
	}
	for _, name := range names {
		err := tx.Bucket([]byte(name)).ForEach(func(k, v []byte) error {
			if v == nil {
				return fmt.Errorf("bucket %q: a bucket inside it: %q", name, k)
			}
			if name != "key" {
				return out.Encode(pairLine{name, k, v})
			}
			line, err := decodePair(k, v)
			if err != nil {
				return fmt.Errorf("bucket key, pair %x: %w", k, err)
			}
			return out.Encode(line)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// decodePair reads a revision (8 bytes, '_', 8 bytes, and 't' for a
// tombstone) and the KeyValue stored under it.
func decodePair(k, v []byte) (keyLine, error) {
	line := keyLine{Bucket: "key"}
	switch {
	case len(k) == 18 && k[17] == 't':
		line.Tombstone = true
	case len(k) != 17:
		return line, fmt.Errorf("a revision of %d bytes", len(k))
	}
	if k[8] != '_' {
		return line, fmt.Errorf("byte 8 of a revision is %#x", k[8])
	}
	line.Main = int64(binary.BigEndian.Uint64(k[:8]))
	line.Sub = int64(binary.BigEndian.Uint64(k[9:17]))
	kv, err := decodeKeyValue(v)
	line.keyValue = kv
	return line, err
}

var errShort = errors.New("KeyValue ends too early")

// decodeKeyValue takes only what etcd itself writes: known fields, each once,
// ascending, zero values left out, varints as short as they can be. Two
// encodings of one pair would give two hashes.
func decodeKeyValue(b []byte) (keyValue, error) {
	kv := keyValue{Key: []byte{}, Value: []byte{}}
	last := uint64(0)
	for len(b) > 0 {
		tag, rest, err := varint(b)
		if err != nil {
			return kv, err
		}
		if tag>>3 <= last {
			return kv, fmt.Errorf("field %d after field %d", tag>>3, last)
		}
		last = tag >> 3
		n, rest, err := varint(rest)
		if err != nil {
			return kv, err
		}
		if n == 0 {
			return kv, fmt.Errorf("field %d is written although it is zero", last)
		}
		b = rest
		switch tag {
		case 1<<3 | 2, 5<<3 | 2:
			if uint64(len(rest)) < n {
				return kv, errShort
			}
			if last == 1 {
				kv.Key = rest[:n]
			} else {
				kv.Value = rest[:n]
			}
			b = rest[n:]
		case 2 << 3:
			kv.Create = int64(n)
		case 3 << 3:
			kv.Mod = int64(n)
		case 4 << 3:
			kv.Version = int64(n)
		case 6 << 3:
			kv.Lease = int64(n)
		default:
			return kv, fmt.Errorf("unexpected tag %#x", tag)
		}
	}
	return kv, nil
}

func varint(b []byte) (uint64, []byte, error) {
	n, size := binary.Uvarint(b)
	if size == 0 {
		return 0, nil, errShort
	}
	if size < 0 || (size > 1 && b[size-1] == 0) {
		return 0, nil, errors.New("a varint that is too long")
	}
	return n, b[size:], nil
}
