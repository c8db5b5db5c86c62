from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from base.errors import NotFoundError, UsageError
from base.ids import ClusterId, PodId
from discovery.code import new_code
from discovery.interfaces import Interface, announced_addresses, interfaces, multicast_scope
from discovery.nearby import cluster_without_code, clusters_of, issuer_of
from discovery.service import MAX_ADDRESSES, Service, read_service, usable_addresses


def a_service(name="laptop", cluster="home", cluster_id="c", admission="code", pod="1") -> Service:
    return Service(
        ClusterId(cluster_id * 32), cluster, PodId(pod * 32), name, admission, 7420, ("192.168.1.5", "10.0.0.1")
    )


def announced(service: Service, **changes):
    properties = {key.encode(): value.encode() for key, value in service.properties().items()}
    return {**properties, **{key.encode(): value for key, value in changes.items()}}


def read(service: Service, **changes):
    return read_service(service.instance, announced(service, **changes), service.addresses, service.port)


def test_what_is_announced_reads_back():
    service = a_service()
    assert read(service) == service
    assert service.endpoints == ("192.168.1.5:7420", "10.0.0.1:7420")
    assert read_service(service.instance.upper(), announced(service), service.addresses, 7420) == service
    assert sum(len(key) + len(value) + 2 for key, value in announced(service).items()) < 400


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("v", b"-1"), ("v", b""), ("v", b"9" * 20), ("v", "\u00b2".encode()), ("v", None),
        ("cluster", b"C" * 32), ("cluster", b"c" * 31), ("name", b"\x1b[2J"), ("name", b"\xff"), ("name", b"x" * 64),
        ("pod", b"2" * 32), ("tag", b"aaaa"), ("admission", b"perhaps"), ("podname", b"a/b"), ("podname", b"y" * 300),
    ],
)  # fmt: skip
def test_an_odd_value_makes_it_ignored(key, value):
    assert read(a_service(), **{key: value}) is None


@pytest.mark.parametrize("port", [None, 0, -1, 65536])
def test_an_impossible_port(port):
    service = a_service()
    assert read_service(service.instance, announced(service), service.addresses, port) is None


def test_addresses_are_checked_ordered_and_bounded():
    given_ones = ["127.0.0.1", "224.0.0.251", "0.0.0.0", "fe80::1", "2001:db8::1", "x", "10.0.0.1", "10.0.0.1", "::"]
    assert usable_addresses(given_ones) == ("10.0.0.1", "2001:db8::1", "127.0.0.1")
    assert len(usable_addresses([f"10.0.0.{number}" for number in range(1, 200)])) == MAX_ADDRESSES
    service = a_service()
    assert read_service(service.instance, announced(service), ["224.0.0.1"], 7420) is None


@given(
    st.text(max_size=80),
    st.dictionaries(st.binary(max_size=12), st.none() | st.binary(max_size=300), max_size=9),
    st.lists(st.text(max_size=20), max_size=20),
    st.none() | st.integers(-5, 70000),
)
def test_any_announcement_is_read_or_ignored(instance, properties, addresses, port):
    assert read_service(instance, properties, addresses, port) is None


def test_pods_are_grouped_into_clusters():
    services = [a_service("nas", pod="2"), a_service("laptop"), a_service("x", "office", "d", pod="3")]
    clusters = clusters_of(services)
    assert [(cluster.name, len(cluster.pods)) for cluster in clusters] == [("home", 2), ("office", 1)]
    assert clusters[0].pods[0].pod_name == "laptop"
    assert clusters[0].address == "192.168.1.5:7420"


def test_the_code_finds_its_issuer():
    services = [a_service("nas", pod="2"), a_service("laptop")]
    code = new_code(services[1].tag, 3)
    assert issuer_of(services, code, None) == [services[1]]
    assert issuer_of(services, code, "home") == [services[1]]
    assert issuer_of(services, code, "c" * 32) == [services[1]]
    with pytest.raises(UsageError):
        issuer_of(services, code, "office")
    with pytest.raises(NotFoundError, match="other pods only"):
        issuer_of(services[:1], code, None)
    with pytest.raises(NotFoundError, match="no pod at all"):
        issuer_of([], code, None)


def test_without_a_code_one_open_cluster_is_needed():
    open_one = a_service(admission="open")
    assert cluster_without_code(clusters_of([open_one]), None).pods == (open_one,)
    with pytest.raises(NotFoundError):
        cluster_without_code([], None)
    with pytest.raises(NotFoundError, match="there are: home"):
        cluster_without_code(clusters_of([open_one]), "office")
    with pytest.raises(UsageError, match="wormhole invite"):
        cluster_without_code(clusters_of([a_service()]), None)
    twins = clusters_of([open_one, a_service(cluster_id="d", admission="open", pod="2")])
    with pytest.raises(UsageError) as caught:
        cluster_without_code(twins, "home")
    assert "c" * 32 in caught.value.message
    assert "d" * 32 in caught.value.message
    assert cluster_without_code(twins, "d" * 32).id == "d" * 32


def test_which_addresses_are_told():
    lo, eth = Interface("lo", 1, "127.0.0.1", True), Interface("eth0", 2, "10.0.0.1", True)
    assert announced_addresses((eth, lo)) == ("10.0.0.1",)
    assert announced_addresses((lo,)) == ("127.0.0.1",)
    assert announced_addresses(()) == ()
    assert [entry.address for entry in interfaces("127.0.0.1")] == ["127.0.0.1"]
    assert interfaces("192.0.2.250") == ()


@pytest.mark.parametrize(
    ("host", "scope"),
    [("0.0.0.0", None), ("::", None), ("127.0.0.1", "127.0.0.1"), ("localhost", "127.0.0.1"), ("::1", "127.0.0.1"),
     ("192.168.1.5", "192.168.1.5"), ("nas.local", None), ("", None)],
)  # fmt: skip
def test_multicast_goes_where_the_pod_listens(host, scope):
    assert multicast_scope(host) == scope
