{{- /* The pod of a pool: {root, name, pool, container}. */}}
{{- define "optkit.pod" -}}
{{- $repository := .pool.repository -}}
automountServiceAccountToken: false
{{- with .root.Values.serviceAccount }}
serviceAccountName: {{ . }}
{{- end }}
{{- with .root.Values.imagePullSecrets }}
imagePullSecrets: {{ toJson . }}
{{- end }}
terminationGracePeriodSeconds: 60
securityContext:
  runAsNonRoot: true
  runAsUser: 1000
  runAsGroup: 1000
  fsGroup: 1000
  seccompProfile: {type: RuntimeDefault}
nodeSelector: {{ toJson .pool.nodeSelector }}
tolerations: {{ toJson .pool.tolerations }}
topologySpreadConstraints:
  - maxSkew: 1
    topologyKey: kubernetes.io/hostname
    whenUnsatisfiable: ScheduleAnyway
    labelSelector:
      matchLabels:
        {{- include "optkit.selector" .root | nindent 8 }}
        app.kubernetes.io/component: {{ .name }}
initContainers:
  - name: fetch
    image: {{ .root.Values.fetch.image | quote }}
    command: [sh, /chart/fetch.sh]
    env:
      - {name: REPOSITORY, value: {{ $repository.remote | quote }}}
      - {name: RCLONE_CONFIG, value: /tmp/none.conf}
      {{- with $repository.endpoint }}
      - {name: RCLONE_S3_ENDPOINT, value: {{ . | quote }}}
      {{- end }}
      {{- with $repository.provider }}
      - {name: RCLONE_S3_PROVIDER, value: {{ . | quote }}}
      {{- end }}
    {{- with $repository.secret }}
    envFrom: [{secretRef: {name: {{ . | quote }}}}]
    {{- end }}
    resources: {{ toJson .root.Values.fetch.resources }}
    securityContext: {{ include "optkit.confined" . }}
    volumeMounts:
      - {name: models, mountPath: /models}
      - {name: chart, mountPath: /chart, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- if $repository.claim }}
      - {name: repository, mountPath: /repository, subPath: {{ $repository.path | quote }}, readOnly: true}
      {{- end }}
containers:
  - name: {{ .container }}
    image: {{ .pool.image | quote }}
    command: [tritonserver]
    args:
      {{- range .pool.arguments }}
      - {{ . | quote }}
      {{- end }}
      - --allow-grpc={{ .root.Values.service.grpc }}
      {{- if .root.Values.service.grpc }}
      - --grpc-restricted-protocol=model-repository,shared-memory,statistics,trace,logging:optkit-pod=$(POD_UID)
      {{- end }}
    env:
      - name: POD_UID
        valueFrom: {fieldRef: {fieldPath: metadata.uid}}
      - {name: PYTHONDONTWRITEBYTECODE, value: "1"}
    ports:
      - {name: http, containerPort: 8000}
      - {name: metrics, containerPort: 8002}
      {{- if .root.Values.service.grpc }}
      - {name: grpc, containerPort: 8001}
      {{- end }}
    startupProbe: {httpGet: {path: /v2/health/ready, port: http}, periodSeconds: 2, failureThreshold: 300}
    readinessProbe: {httpGet: {path: /v2/health/ready, port: http}, periodSeconds: 5}
    livenessProbe: {httpGet: {path: /v2/health/live, port: http}, periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6}
    lifecycle: {preStop: {sleep: {seconds: 10}}}
    resources: {{ toJson .pool.resources }}
    securityContext: {{ include "optkit.confined" . }}
    volumeMounts:
      - {name: models, mountPath: /models, readOnly: true}
      - {name: tmp, mountPath: /tmp}
      {{- if .pool.sharedMemory }}
      - {name: shared, mountPath: /dev/shm}
      {{- end }}
volumes:
  - {name: models, emptyDir: {}}
  - {name: tmp, emptyDir: {}}
  - {name: chart, configMap: {name: {{ include "optkit.name" .root }}-{{ .name }}}}
  {{- if .pool.sharedMemory }}
  - {name: shared, emptyDir: {medium: Memory, sizeLimit: {{ .pool.sharedMemory | quote }}}}
  {{- end }}
  {{- if $repository.claim }}
  - {name: repository, persistentVolumeClaim: {claimName: {{ $repository.claim | quote }}, readOnly: true}}
  {{- end }}
{{- end }}

{{- define "optkit.confined" -}}
{allowPrivilegeEscalation: false, readOnlyRootFilesystem: true, capabilities: {drop: [ALL]}}
{{- end }}
